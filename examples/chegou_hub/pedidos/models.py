"""Orders and the pick-ups that the carrier confirmed for them."""

from django.db import models


class Pedido(models.Model):
    """An order."""

    class Status(models.TextChoices):
        """Where the order is."""

        RECEBIDO = "recebido"
        SINCRONIZADO = "sincronizado"

    cliente = models.CharField(max_length=120)
    cep = models.CharField(max_length=9)
    valor = models.DecimalField(max_digits=10, decimal_places=2)
    frete = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.RECEBIDO)
    criado_em = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"#{self.pk} {self.cliente}"


class Coleta(models.Model):
    """A pick-up at the carrier, one per order."""

    pedido = models.OneToOneField(Pedido, on_delete=models.CASCADE, related_name="coleta")
    protocolo = models.CharField(max_length=40)
    criada_em = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.protocolo
