"""A rule about the members of a workspace: one of them can manage it."""

from django.contrib.auth.models import User

from workspaces.models import Membership
from workspaces.refused import LastOwner


def keep_an_owner(leaving: Membership) -> None:
    """Raises LastOwner where no other owner could still sign in without ``leaving``. The workspace
    must be locked: else two owners could send each other away at the same moment."""
    owners = Membership.objects.in_workspace(leaving.workspace).filter(
        role=Membership.Role.OWNER, user__is_active=True
    )
    if leaving.role == Membership.Role.OWNER and not owners.exclude(pk=leaving.pk).exists():
        raise LastOwner


def is_last_owner(user: User) -> bool:
    """Whether some workspace would have no owner who can sign in if ``user`` were gone."""
    owners = Membership.objects.everywhere().filter(role=Membership.Role.OWNER)
    others = owners.filter(user__is_active=True).exclude(user=user)
    return owners.filter(user=user).exclude(workspace__in=others.values("workspace")).exists()
