from django.apps import AppConfig


class RexsiteConfig(AppConfig):
    name = "rexsite"

    def ready(self) -> None:
        from rexsite import checks  # noqa: F401  (registers the system checks)
