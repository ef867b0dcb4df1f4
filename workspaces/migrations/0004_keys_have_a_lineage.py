"""What quotas of a key count by. A key that was made before begins a lineage of its own."""

from typing import Any

from django.db import migrations, models
from django.db.models import F


def begin_lineages(apps: Any, schema_editor: Any) -> None:
    apps.get_model("workspaces", "ApiKey").objects.update(lineage=F("public"))


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0003_what_exists_keeps_its_rights")]
    operations = [
        migrations.AddField(
            model_name="apikey",
            name="lineage",
            field=models.CharField(default="", editable=False, max_length=16),
            preserve_default=False,
        ),
        migrations.RunPython(begin_lineages, migrations.RunPython.noop),
    ]
