"""The scripts side by side with Kafka's own tools and kcat, on one broker in one run: `make bench`."""
