"""Child processes of backups, the demo, torture and the tests: they never outlive whoever started them."""
