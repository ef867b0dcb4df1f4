"""The parts of scripts/fanout_load_test.py."""
