"""What a user of senet would write."""
