"""``manage.py bootstrap_workspace``: the first workspace, user and key."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from workspaces.actions.bootstrap_workspace import bootstrap_workspace


class Command(BaseCommand):
    help = "Make the first workspace, its owner and its API key, unless they exist."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        made = bootstrap_workspace()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(made)))
            return
        self.stdout.write(f"Workspace {made.workspace}, user {made.username}.")
        if made.password:
            self.stdout.write(f"Password, shown once: {made.password}")
        if made.api_key:
            self.stdout.write(f"API key, shown once: {made.api_key}")
