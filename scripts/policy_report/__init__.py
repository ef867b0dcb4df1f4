"""Comparing synthesis policies on recorded answers: legs, measures, the written report."""
