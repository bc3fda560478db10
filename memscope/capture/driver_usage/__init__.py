"""What a device's driver says is used: counted, sampled, and told apart by what the counts differ in."""
