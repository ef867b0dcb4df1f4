"""The rows of workspaces. Everything but a workspace itself is reached through ``Scoped``."""

from workspaces.models.audit import AuditEntry
from workspaces.models.identity import ApiKey, Invitation, Membership, Profile, Workspace
from workspaces.models.quotas import (
    Counter,
    Lease,
    Quota,
    QuotaOverride,
    Reservation,
)
from workspaces.models.scoped import Scoped

__all__ = [
    "ApiKey",
    "AuditEntry",
    "Counter",
    "Invitation",
    "Lease",
    "Membership",
    "Profile",
    "Quota",
    "QuotaOverride",
    "Reservation",
    "Scoped",
    "Workspace",
]
