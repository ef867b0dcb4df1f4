"""Routes of the pages about people: their account, the members of a workspace, its keys."""

from django.urls import path

from workspaces.views import account, joining, keys, members

urlpatterns = [
    path("account/", account.show, name="account"),
    path("account/password/", account.ChangePassword.as_view(), name="change-password"),
    path("account/workspace/", account.choose, name="choose-workspace"),
    path("account/leave/<uuid:workspace_id>/", account.leave, name="leave-workspace"),
    path("members/", members.show, name="members"),
    path("members/<int:membership_id>/role/", members.set_role, name="member-role"),
    path("members/<int:membership_id>/remove/", members.remove, name="member-remove"),
    path(
        "members/invitations/<int:invitation_id>/withdraw/",
        members.withdraw,
        name="invitation-withdraw",
    ),
    path("join/<str:token>/", joining.join, name="join"),
    path("keys/", keys.show_all, name="keys"),
    path("keys/new/", keys.issue, name="key-new"),
    path("keys/<slug:public>/", keys.show, name="key"),
    path("keys/<slug:public>/quotas/", keys.set_quotas, name="key-quotas"),
    path("keys/<slug:public>/rotate/", keys.rotate, name="key-rotate"),
    path("keys/<slug:public>/revoke/", keys.revoke, name="key-revoke"),
]
