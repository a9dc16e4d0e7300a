"""Two tables."""

from django.db import connection, models


class Customer(models.Model):
    """Who orders."""

    name = models.CharField(max_length=80)

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """What is ordered."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    state = models.CharField(max_length=20, default="open")

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return f"{self.pk} ({self.state})"


def fill() -> None:
    """Create the tables with 50 customers and 500 orders."""
    with connection.schema_editor() as editor:
        editor.create_model(Customer)
        editor.create_model(Order)
    customers = Customer.objects.bulk_create(Customer(name=f"Customer {number}") for number in range(50))
    Order.objects.bulk_create(Order(customer=customers[number % 50]) for number in range(500))
