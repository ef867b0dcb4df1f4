"""``manage.py issue_key``: a further API key of a workspace."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workspaces.actions.issue_key import issue_key
from workspaces.models import Workspace


class Command(BaseCommand):
    help = "Make an API key of a workspace and print it once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workspace", help="the workspace's slug")
        parser.add_argument("--name", default="key", help="what the key is for")

    def handle(self, *args: Any, **options: Any) -> None:
        workspace = Workspace.objects.filter(slug=options["workspace"]).first()
        if workspace is None:
            raise CommandError(f"There is no workspace {options['workspace']!r}.")
        self.stdout.write(issue_key(workspace=workspace, name=options["name"]))
