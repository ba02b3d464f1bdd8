"""What train.py and eval.py do, step by step: from a configuration to a run folder."""
