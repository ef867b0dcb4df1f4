"""Join a workspace by an invitation, as a user there is or as a new one."""

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext_lazy as _

from workspaces.actions.record_change import record_change, state_of
from workspaces.counting import lock_workspace
from workspaces.invitations import find_invitation, open_invitations
from workspaces.models import Membership, Workspace
from workspaces.refused import InvitationGone


@transaction.atomic
def accept_invitation(*, token: str, user: User, request_id: str = "") -> Workspace:
    """``user`` joins with the role of the invitation, which then is used up. For one who is a
    member already neither changes. Raises InvitationGone."""
    found = find_invitation(token)
    if found is None or not user.is_active:
        raise InvitationGone
    workspace, now = lock_workspace(found.workspace)
    # Under the lock: of two who hold the same link one finds it used, of an owner who withdraws it
    # and a guest who accepts it the later one comes too late.
    invitation = open_invitations(token, now).first()
    if invitation is None:
        raise InvitationGone
    members = Membership.objects.in_workspace(workspace)
    if members.filter(user_id=user.pk).exists():
        return workspace
    before = state_of(invitation)
    invitation.accepted_at, invitation.accepted_by = now, user
    invitation.save(update_fields=["accepted_at", "accepted_by"])
    joined = Membership.objects.create(workspace=workspace, user=user, role=invitation.role)
    for action, row, old in (
        ("invitation.accepted", invitation, before),
        ("member.joined", joined, {}),
    ):
        record_change(
            actor=user.get_username(),
            action=action,
            row=row,
            before=old,
            after=state_of(row),
            workspace=workspace,
            user_id=user.pk,
            request_id=request_id,
        )
    return workspace


@transaction.atomic
def register_and_accept(*, token: str, username: str, password: str, request_id: str = "") -> User:
    """A new user who joins: both or neither. Raises InvitationGone, and ValidationError with the
    messages of ``username`` and ``password``."""
    if find_invitation(token) is None:
        raise InvitationGone
    user = User(username=User.normalize_username(username))
    wrong: dict[str, ValidationError] = {}
    try:
        user.clean_fields(exclude=["password"])
        if User.objects.filter(username__iexact=user.username).exists():
            raise ValidationError({"username": _NAME_TAKEN})
    except ValidationError as error:
        wrong["username"] = ValidationError(error.messages)
    try:
        validate_password(password, user)
    except ValidationError as error:
        wrong["password"] = error
    if wrong:
        raise ValidationError(wrong)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError:
        # Somebody took the name since it was looked for.
        raise ValidationError({"username": _NAME_TAKEN}) from None
    accept_invitation(token=token, user=user, request_id=request_id)
    return user


_NAME_TAKEN = _("A user with that name exists. If it is you, sign in first.")
