"""``manage.py revoke_key``: end an API key for good."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workspaces.actions.revoke_key import revoke_key
from workspaces.models import ApiKey


class Command(BaseCommand):
    help = "Revoke an API key; what it holds open closes within seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        # Not the key: what a process was started with can be read by others on the machine.
        parser.add_argument("public", help="the 12 characters of the key after sk-rex-")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = ApiKey.objects.everywhere().select_related("workspace")
        key = rows.filter(public=options["public"][:16]).first()
        if key is None:
            raise CommandError("There is no such key. Give the 12 characters after sk-rex-.")
        revoke_key(key=key, by=None)
        self.stdout.write(f"Revoked: {key.name}, of {key.workspace.name}.")
