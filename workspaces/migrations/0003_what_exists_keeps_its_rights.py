"""Keys that were made before there were scopes may go on doing what they did; so may workspaces
that ask models whose price nobody knows."""

from typing import Any

from django.db import migrations

ALL = ["runs:read", "runs:write", "usage:read"]


def keep_rights(apps: Any, schema_editor: Any) -> None:
    apps.get_model("workspaces", "ApiKey").objects.filter(scopes=[]).update(scopes=ALL)
    apps.get_model("workspaces", "Workspace").objects.update(allow_unpriced=True)


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0002_quotas_keys_and_audit")]
    operations = [migrations.RunPython(keep_rights, migrations.RunPython.noop)]
