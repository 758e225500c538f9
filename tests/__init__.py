"""The test suites: unit, integration, failure, typing, and what they stand on (support)."""
