"""Do the tests notice? Small faults are put into the modules that everything rests on, one at a time."""
