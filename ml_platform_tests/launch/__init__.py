"""Tests of starting, following and ending training jobs."""
