"""What remask is measured by: each benchmark runs us, our peers and what limits us side by side."""
