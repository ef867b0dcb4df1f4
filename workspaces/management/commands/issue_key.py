"""``manage.py issue_key``: a further API key of a workspace."""

import re
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from workspaces.actions.issue_key import ALL, issue_key
from workspaces.models import Workspace
from workspaces.refused import Refused

_SPAN = re.compile(r"(\d{1,4})([hd])\Z")


class Command(BaseCommand):
    help = "Make an API key of a workspace and print it once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("workspace", help="the workspace's slug")
        parser.add_argument("--name", default="key", help="what the key is for")
        parser.add_argument(
            "--scope",
            action="append",
            choices=ALL,
            help="what it may do; may be given several times; all of it where none is given",
        )
        parser.add_argument(
            "--expires",
            metavar="WHEN",
            help="after 12h or 90d, or at 2027-01-31T00:00:00Z; never where it is not given",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        workspace = Workspace.objects.filter(slug=options["workspace"]).first()
        if workspace is None:
            raise CommandError(f"There is no workspace {options['workspace']!r}.")
        try:
            key = issue_key(
                workspace=workspace,
                name=options["name"],
                scopes=options["scope"] or ALL,
                expires_at=_moment(options["expires"]),
            )
        except Refused as refused:
            raise CommandError(str(refused)) from None
        self.stdout.write(key)


def _moment(text: str | None) -> datetime | None:
    """The moment ``text`` means; raises CommandError where it means none."""
    if text is None:
        return None
    if span := _SPAN.match(text):
        hours = int(span[1]) * (24 if span[2] == "d" else 1)
        return timezone.now() + timedelta(hours=hours)
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or timezone.is_naive(moment):
        raise CommandError("--expires takes 12h, 90d, or a moment such as 2027-01-31T00:00:00Z.")
    return moment
