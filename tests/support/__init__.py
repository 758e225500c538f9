"""Servers, certificates and helpers for the suites. README.md beside this file lists fixtures and routes."""
