"""The reference pipeline: will a flight out of New York arrive 15 or more minutes late?"""
