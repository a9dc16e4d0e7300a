"""The first tables."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates Pedido and Coleta."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Pedido",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("cliente", models.CharField(max_length=120)),
                ("cep", models.CharField(max_length=9)),
                ("valor", models.DecimalField(decimal_places=2, max_digits=10)),
                ("frete", models.DecimalField(decimal_places=2, max_digits=10)),
                (
                    "status",
                    models.CharField(
                        choices=[("recebido", "Recebido"), ("sincronizado", "Sincronizado")], default="recebido", max_length=20
                    ),
                ),
                ("criado_em", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Coleta",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("protocolo", models.CharField(max_length=40)),
                ("criada_em", models.DateTimeField(auto_now_add=True)),
                (
                    "pedido",
                    models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name="coleta", to="pedidos.pedido"),
                ),
            ],
        ),
    )
