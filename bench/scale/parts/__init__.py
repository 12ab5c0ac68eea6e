"""What runs in a process of its own: in each module `measure`, from values to a result that it says on stdout."""
