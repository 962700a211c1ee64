"""What customers of a bank ask, in a few words. The schedule draws from these."""

from __future__ import annotations

TEXTS = (
    "How much does the Gold Card cost a year?",
    "Which card has no annual fee?",
    "How do I dispute a card transaction?",
    "I lost my card. What now?",
    "When will my new card arrive?",
    "How much cash back do I get on travel?",
    "May I use the airport lounge with the Gold Card?",
    "What does a replacement card cost?",
    "How long do I have to dispute a charge?",
    "Will you credit the amount while you look into it?",
    "My card was declined at a shop. Why?",
    "How do I change my PIN?",
    "Can I freeze my card for a week?",
    "Why is my transfer still pending?",
    "How do I cancel a transfer?",
    "What is the fee for a withdrawal abroad?",
    "Which exchange rate do you use?",
    "My top-up has not arrived yet.",
    "How do I verify my identity?",
    "Can I have a second card for my daughter?",
    "I was charged twice for the same purchase.",
    "How do I close my account?",
    "What is the limit of my card?",
    "Is there a fee for paying late?",
    "Where do I find my statement of last month?",
)
