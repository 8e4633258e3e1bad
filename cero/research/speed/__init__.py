"""What does the scheduler cost a training step?"""
