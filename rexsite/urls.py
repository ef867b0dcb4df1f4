"""All routes of the site."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from rexsite import errors, health, theme

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("admin/", admin.site.urls),
    path("login/", auth_views.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("theme/", theme.set_theme, name="set-theme"),
    path("language/", theme.set_language, name="set-language"),
    path("", include("workspaces.urls")),
    path("", include("orchestration.urls")),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
