"""What the numbers mean: each verdict is a rule one can read in ten lines; thresholds stand in one file."""
