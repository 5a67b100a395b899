"""The servers that tests, benchmarks and README's examples start: Kafka, Redis, S3, and a stand-in for V3IO."""
