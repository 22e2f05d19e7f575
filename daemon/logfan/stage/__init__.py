"""What happens to records before a sink gets them: chosen, sampled, changed. Sans-I/O."""
