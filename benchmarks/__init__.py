"""Speed and memory of scoring, against what an ordinary script would do."""
