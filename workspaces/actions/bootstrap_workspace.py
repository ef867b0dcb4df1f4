"""Make the first workspace, its owner and its API key, once."""

import secrets
from dataclasses import dataclass

from django.contrib.auth import get_user_model
from django.db import transaction

from workspaces.actions.issue_key import issue_key
from workspaces.models import ApiKey, Membership, Workspace

FIRST_SLUG = "home"
FIRST_USER = "owner"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What exists now; ``password`` and ``api_key`` only where this call made them."""

    workspace: str
    username: str
    password: str | None
    api_key: str | None


@transaction.atomic
def bootstrap_workspace() -> Bootstrap:
    """Idempotent: a second call finds what the first made and shows no secret again."""
    # Whoever starts Rex is its operator, and knows what the own server of a model costs.
    workspace, _ = Workspace.objects.get_or_create(
        slug=FIRST_SLUG, defaults={"name": "Home", "allow_unpriced": True}
    )
    password = None
    user = get_user_model().objects.filter(username=FIRST_USER).first()
    if user is None:
        password = secrets.token_urlsafe(12)
        user = get_user_model().objects.create_superuser(username=FIRST_USER, password=password)
    Membership.objects.in_workspace(workspace).get_or_create(
        user=user, defaults={"workspace": workspace, "role": Membership.Role.OWNER}
    )
    exists = ApiKey.objects.in_workspace(workspace).exists()
    api_key = None if exists else issue_key(workspace=workspace, name="first key")
    return Bootstrap(workspace.name, user.get_username(), password, api_key)
