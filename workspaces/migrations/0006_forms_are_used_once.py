"""What is shown once names the form it was made with. What was made before names none."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("workspaces", "0005_audit_keeps_names")]
    operations = [
        migrations.AddField(
            model_name="apikey", name="mark", field=models.UUIDField(editable=False, null=True)
        ),
        migrations.AddField(
            model_name="invitation", name="mark", field=models.UUIDField(editable=False, null=True)
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.UniqueConstraint(fields=("workspace", "mark"), name="one_key_a_form"),
        ),
        migrations.AddConstraint(
            model_name="invitation",
            constraint=models.UniqueConstraint(
                fields=("workspace", "mark"), name="one_invitation_a_form"
            ),
        ),
    ]
