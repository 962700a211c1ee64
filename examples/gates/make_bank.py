"""Makes bank.jsonl, the gate set of the bank: questions whose answers stand in its documents.

    python examples/gates/make_bank.py DOCUMENTS.jsonl > examples/gates/bank.jsonl

The documents are those of tau2-bench's banking domain (Sierra Research, 2025, MIT licence): a JSON object a
line with `id`, `title` and `content`. The questions and the facts that a good answer has were written by
hand; each passage is cut from its document here, around the sentence that holds the answer. A sentence
or a fact that isn't there ends the script: nothing in the file is made up.

Each question says one thing that can be read off its passage, so that a model of 135 M parameters gets a
good part of them right, and one with broken weights next to none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSAGE_CHARACTERS_MAX = 480
PERSONA = "You are a helpful assistant of a bank."

# The document, words of the sentence that holds the answer, the question, and what a good answer says.
CASES = (
    (
        "bank_accounts_bank_accounts_(general)_047",
        "third referral (and any subsequent",
        "What happens to a third referral within a single 9-day period?",
        "denied",
    ),
    (
        "business_checking_accounts_beige_001",
        "dedicated account managers",
        "How many dedicated account managers am I assigned?",
        "2 dedicated",
    ),
    (
        "business_checking_accounts_beige_009",
        "dual authorization is required",
        "Above which amount do payments need dual authorization?",
        "$10,000",
    ),
    (
        "business_checking_accounts_beige_010",
        "minimum of $2.00 per withdrawal",
        "What is the minimum fee for a foreign ATM withdrawal?",
        "$2.00",
    ),
    (
        "business_checking_accounts_cobalt_blue_009",
        "the standard fee is $20.00",
        "What is the standard fee for a wire?",
        "$20.00",
    ),
    (
        "business_checking_accounts_hunter_green_001",
        "monthly maintenance fee is $25.00",
        "What is the monthly maintenance fee?",
        "$25.00",
    ),
    (
        "business_checking_accounts_hunter_green_005",
        "default alert threshold",
        "What is the default alert threshold?",
        "$100",
    ),
    (
        "business_checking_accounts_lime_green_003",
        "within 2 business hours",
        "How soon will my manager respond?",
        "2 business hours",
    ),
    (
        "business_checking_accounts_lime_green_008",
        "when using a non‑Rho ATM",
        "What am I charged per withdrawal at a non-Rho ATM?",
        "$1.00",
    ),
    (
        "business_checking_accounts_sky_blue_001",
        "After the free period",
        "What is the monthly maintenance fee after the free period?",
        "$25.00",
    ),
    (
        "business_credit_cards_business_bronze_rewards_card_006",
        "not charged an annual membership fee",
        "What is the annual fee of the Business Bronze Rewards Card?",
        "$0.00",
    ),
    (
        "business_credit_cards_business_gold_rewards_card_007",
        "complimentary lounge visits",
        "How many complimentary lounge visits does my account include per year?",
        "9 complimentary",
    ),
    (
        "business_credit_cards_business_platinum_rewards_card_007",
        "software or cloud services, you earn",
        "How much do I earn on software or cloud services?",
        "4.0%",
    ),
    (
        "business_credit_cards_virtual_card_management_003",
        "permanently closed",
        "Within how many seconds are attempted authorizations blocked?",
        "3 seconds",
    ),
    (
        "business_savings_accounts_bronze_saver_account_005",
        "deposit checks via mobile",
        "Up to which daily total can I deposit checks via mobile banking?",
        "$2,500",
    ),
    (
        "business_savings_accounts_bronze_saver_account_007",
        "add up to 2 authorized users",
        "How many authorized users can I add to my Bronze Saver Account?",
        "2 authorized",
    ),
    (
        "business_savings_accounts_emerald_saver_001",
        "a fee of $5.00 is charged",
        "What fee is charged if the required minimum is not met?",
        "$5.00",
    ),
    (
        "business_savings_accounts_gold_plus_saver_005",
        "maximum daily transfer amount",
        "What is the maximum daily transfer amount?",
        "$50,000",
    ),
    (
        "business_savings_accounts_joint_business_holders_+_user_roles_009",
        "read-only access to historical data",
        "For how many months can auditors read historical data?",
        "48 months",
    ),
    (
        "buy_now_pay_later_bnpl_diamond_003",
        "active BNPL Diamond repayment plans",
        "How many active BNPL Diamond repayment plans may I keep at once?",
        "25",
    ),
    (
        "buy_now_pay_later_bnpl_diamond_004",
        "If no selection is made",
        "How long is the plan if I make no selection at setup?",
        "12 months",
    ),
    (
        "checking_accounts_gold_years_account_006",
        "one-time bonus of $50.00",
        "What one-time bonus do I get after a Social Security direct deposit?",
        "$50.00",
    ),
    (
        "checking_accounts_green_account_(checking)_011",
        "Standard external transfers typically complete",
        "How long do standard external transfers take?",
        "3 business days",
    ),
    (
        "checking_accounts_green_fee-free_account_001",
        "returned unpaid by the issuing bank",
        "What is the fee when a deposited check is returned unpaid?",
        "$15.00",
    ),
    (
        "checking_accounts_light_green_account_001",
        "withdraw up to $150 per day",
        "How much cash can I withdraw per day?",
        "$150",
    ),
    (
        "checking_accounts_purple_account_004",
        "daily ATM withdrawal limit of $1,000",
        "What is the daily ATM withdrawal limit of the Purple Account?",
        "$1,000",
    ),
    (
        "credit_cards_bronze_rewards_card_007",
        "initiate a redemption once",
        "What rewards balance do I need before I can redeem?",
        "$17",
    ),
    (
        "credit_cards_credit_card_account_logistics_001",
        "Annual fee refund",
        "Within how many days of the annual fee posting can I close my account for a full refund?",
        "37 days",
    ),
    (
        "credit_cards_crypto-cash_back_003",
        "curated list of up to 12",
        "How many cryptocurrencies can I choose from?",
        "12",
    ),
    (
        "credit_cards_diamond_elite_card_005",
        "Interest on carried balances",
        "What is the interest on carried balances?",
        "15.99%",
    ),
    (
        "credit_cards_gold_rewards_card_005",
        "Late payments may incur a fee",
        "What is the fee for a late payment?",
        "$32.50",
    ),
    (
        "credit_cards_platinum_rewards_card_001",
        "Your purchase APR is",
        "What is the purchase APR of the Platinum Rewards Card?",
        "16.99%",
    ),
    (
        "credit_cards_virtual_card_management_001",
        "The annual fee for virtual card management",
        "What is the annual fee for virtual card management?",
        "$25.00",
    ),
    (
        "everyone_pay_qr_transfers_001",
        "in a single QR payment",
        "How much can I send in a single QR payment?",
        "$1,250",
    ),
    (
        "savings_accounts_gold_account_009",
        "The Gold Account APY is",
        "What is the APY of the Gold Account?",
        "5.5%",
    ),
    (
        "savings_accounts_green_account_(savings)_007",
        "maximum total amount you can transfer out",
        "What is the maximum total amount I can transfer out per day?",
        "$5,000",
    ),
)


def main(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    documents = {document["id"]: document for document in map(json.loads, lines)}
    for made in (header(), *cases(documents)):
        sys.stdout.write(json.dumps(made, ensure_ascii=False) + "\n")


def header() -> dict[str, Any]:
    """The settings of the gate: what is left out of them has the defaults of `GateSet`."""
    return {
        "name": "bank",
        "judges": [{"name": "facts"}],
        "score_min": 0.6,
        "worse_max": 0.1,
        "tokens_max": 60,
    }


def cases(documents: dict[str, dict[str, str]]) -> Iterator[dict[str, Any]]:
    for id, words, question, fact in CASES:
        document = documents[f"doc_{id}"]
        passage = around(document["content"], words)
        if fact not in passage:
            raise SystemExit(f"{fact!r} does not stand in the passage of {id}: {passage}")
        yield {
            "id": id,
            "question": question,
            "expected": [fact],
            "context": [f"{document['title']}\n{passage}"],
            "persona": PERSONA,
        }


def around(content: str, words: str) -> str:
    """The line with `words`, and its neighbours for as long as they fit, the next one first."""
    lines = [line.strip().lstrip("-* ").replace("**", "") for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    at = next((n for n, line in enumerate(lines) if words in line), None)
    if at is None:
        raise SystemExit(f"No line has the words {words!r}.")
    first = last = at
    for neighbour in (at + 1, at - 1, at + 2, at - 2):
        grown = range(min(first, neighbour), max(last, neighbour) + 1)
        if 0 <= neighbour < len(lines) and sum(len(lines[n]) + 1 for n in grown) <= PASSAGE_CHARACTERS_MAX:
            first, last = grown[0], grown[-1]
    return "\n".join(lines[first : last + 1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
