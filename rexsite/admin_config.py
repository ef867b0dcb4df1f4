"""Which site ``django.contrib.admin`` is; in a file of its own: it is read before models are."""

from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AdminConfig):
    default_site = "rexsite.admin_site.ConsoleSite"
