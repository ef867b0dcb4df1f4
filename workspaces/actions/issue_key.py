"""Make an API key."""

import hashlib
import secrets

from workspaces.models import ApiKey, Workspace

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def issue_key(*, workspace: Workspace, name: str) -> str:
    """Store a new key of ``workspace`` and return it whole: the only time anyone sees it."""
    public = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    ApiKey.objects.create(
        workspace=workspace,
        name=name,
        scopes=list(ApiKey.Scope.values),
        public=public,
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
    )
    return f"sk-rex-{public}-{secret}"
