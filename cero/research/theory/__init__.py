"""What is the offline optimum, and how far does an allocator stay behind it?"""
