"""Pieces of the admin console's own pages."""

from datetime import datetime

from django import template
from django.utils.safestring import SafeString

from orchestration.models import Run
from orchestration.templatetags.rex_format import run_word
from workspaces.admin import show
from workspaces.models import Workspace

register = template.Library()

_MARKS = {
    "queued": "quiet", "running": "running", "done": "good", "degraded": "near", "failed": "bad",
    "cancelled": "quiet",
}  # fmt: skip


@register.filter
def run_state(run: Run) -> SafeString:
    """A run's status in words, with its colour."""
    return show.mark(_MARKS.get(run.status, "quiet"), run_word(run.status))


@register.filter
def workspace_link(workspace: Workspace | None) -> SafeString | str:
    return show.workspace_link(workspace)


@register.filter
def since(moment: datetime) -> str:
    return show.since(moment)
