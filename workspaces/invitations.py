"""Finding an invitation by the token in its link."""

import hashlib
import re
from datetime import datetime
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from workspaces.models import Invitation

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")


def digest_of(token: str) -> str:
    """What is kept of a token. It holds 256 random bits, so that nobody finds it by searching."""
    return hashlib.sha256(token.encode()).hexdigest()


def open_invitations(token: str, now: datetime) -> QuerySet[Invitation]:
    """The invitation whose link holds ``token``, if it can still be accepted; one or none."""
    digest = digest_of(token) if _TOKEN.match(token) else ""
    return Invitation.objects.everywhere().filter(
        token_sha256=digest,
        accepted_at__isnull=True,
        withdrawn_at__isnull=True,
        expires_at__gt=now,
    )


def find_invitation(token: str) -> Invitation | None:
    """None for one that is used, withdrawn, expired or was never there."""
    return open_invitations(token, timezone.now()).select_related("workspace").first()
