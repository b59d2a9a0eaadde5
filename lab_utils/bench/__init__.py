"""`make bench`: the lab measured against a student script, TRL, and what this machine can do at most."""
