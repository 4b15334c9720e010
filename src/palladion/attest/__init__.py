"""What a machine can prove about itself: evidence of trusted hardware, its claims, and what is required of them."""
