"""Changes hosts: stack.py is what pyinfra runs; one folder per component."""
