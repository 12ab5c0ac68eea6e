"""Child processes of the demo, of torture and of the tests: they never outlive whoever started them."""
