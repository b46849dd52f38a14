"""The listener is Whisper's decoder: the same numbers as Hugging Face's, row by row as in a batch, step by step as at once."""

import math

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from echox.models.listener import Listener
from echox.objectives.listener import Dictation, ListenerBatch, listener_loss


def tiny_whisper(folder):
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=40, max_source_positions=50, max_target_positions=30,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(config).eval()
    whisper.save_pretrained(folder)
    return whisper


def test_equals_hugging_face_and_survives_the_disk(tmp_path):
    whisper = tiny_whisper(tmp_path / "whisper")
    listener = Listener.from_whisper(tmp_path / "whisper").eval()
    states_BTW, tokens_BN = torch.randn(2, 50, 16), torch.randint(40, (2, 7))
    expected = whisper(encoder_outputs=(states_BTW,), decoder_input_ids=tokens_BN).logits
    state = listener.start(states_BTW, torch.tensor([50, 50]))
    torch.testing.assert_close(listener.logits(listener(tokens_BN, state)), expected, atol=1e-5, rtol=1e-5)
    listener.save(tmp_path / "listener")
    again = Listener.load(tmp_path / "listener").float()
    for name, value in listener.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_a_row_is_heard_alone_as_in_a_batch_and_step_by_step_as_at_once(tmp_path):
    tiny_whisper(tmp_path)
    listener = Listener.from_whisper(tmp_path).eval()
    states_BTW, frames_B = torch.randn(3, 20, 16), torch.tensor([20, 9, 14])
    for row, frames in enumerate(frames_B.tolist()):
        states_BTW[row, frames:] = 1e3  # padding that must not be seen
    together = listener.generate(states_BTW, frames_B, [1, 3], 2, [1.0, 1.0, 1.0])
    for row, frames in enumerate(frames_B.tolist()):
        one = states_BTW[row : row + 1, :frames], frames_B[row : row + 1]
        [alone] = listener.generate(*one, [1, 3], 2, [1.0])
        assert together[row].tokens == alone.tokens and together[row].ended == alone.ended
        tokens = torch.tensor([[1, 3, *alone.tokens]])
        state = listener.start(states_BTW[row : row + 1], frames_B[row : row + 1])
        odds_N2, best_N2 = listener.logits(listener(tokens, state))[0, 1:].detach().log_softmax(-1).topk(2)
        assert best_N2[: len(alone.tokens), 0].tolist() == alone.tokens  # greedy again, all at once
        for odds in (alone.odds, together[row].odds):  # with the next, which is the end where the text was not cut
            torch.testing.assert_close(torch.tensor(odds), odds_N2, atol=1e-4, rtol=1e-4)


def test_guesses_change_nothing_but_the_number_of_passes(tmp_path, monkeypatch):
    tiny_whisper(tmp_path)
    listener = Listener.from_whisper(tmp_path).eval()
    torch.manual_seed(100)
    states_BTW, frames_B, passes = 100 * torch.randn(2, 20, 16), torch.tensor([20, 14]), []
    forward = listener.forward
    monkeypatch.setattr(listener, "forward", lambda *given: passes.append(1) or forward(*given))

    def heard(rows, *guesses):
        passes.clear()
        heard = listener.generate(states_BTW[rows], frames_B[rows], [1, 3], 2, [0.5] * len(rows), guesses)
        return [one.tokens for one in heard]

    wanted = [heard([0])[0], heard([1])[0]]
    assert wanted[0] != wanted[1] and min(map(len, wanted)) > 4
    slow = max(map(len, wanted)) + 1
    for guesses in ([wanted[0][:3], []], [wanted[1], wanted[0]], [[5] * 40, wanted[1]], [[], []]):
        assert heard([0, 1], *guesses) == wanted and len(passes) <= slow
    for row, text in enumerate(wanted):
        assert heard([row], text) == [text] and len(passes) <= 2
        assert heard([row], [*text[:2], 7, *text[3:]]) == [text] and len(passes) <= len(text)


def test_a_text_that_outgrows_its_speech_is_cut(tmp_path):
    tiny_whisper(tmp_path)
    listener = Listener.from_whisper(tmp_path).eval()
    made = listener.generate(torch.randn(1, 5, 16), torch.tensor([5]), [1], 39, [0.5])[0]
    assert len(made.tokens) == 8 + int(8.0 * 0.5) and not made.ended and made.score(0) == -math.inf


def test_only_the_words_and_their_end_are_learnt(tmp_path):
    tiny_whisper(tmp_path)
    listener = Listener.from_whisper(tmp_path)
    states_BTW, frames_B = torch.randn(2, 10, 16), torch.tensor([10, 6])
    batch = ListenerBatch(states_BTW, frames_B, [[1, 3, 7, 8, 2], [1, 3, 2]], given=2)
    hears, objective = Dictation(listener), listener_loss
    loss = objective(hears(batch))
    alone = [
        objective(hears(ListenerBatch(states_BTW[i : i + 1], frames_B[i : i + 1], [row], 2))).total
        for i, row in enumerate(batch.tokens)
    ]
    torch.testing.assert_close(loss.total, (3 * alone[0] + 1 * alone[1]) / 4)
