"""What was delivered, lost and waited for?"""
