"""Any combination as a model of lm-evaluation-harness."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jinja2
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import postprocess_generated_text, resolve_max_length
from torch import Tensor, nn
from tqdm import tqdm

from harness.exhausted import free_memory, is_out_of_memory
from harness.lm.encoding import Encoder, requests_of
from harness.lm.forward import (
    LanguageModel,
    automatic_tokens,
    device_of,
    shared_vocabulary,
    with_shared_vocabulary,
)
from harness.lm.generation import Generated, Sampling, Stop, write
from harness.lm.generation_request import GenerationRequest, Written, counted, stream_of
from harness.lm.generation_settings import check_settings, drawing, process_logits, processors
from harness.lm.mixing import System
from harness.lm.scoring import Request, Scored, score
from harness.systems.rules import Rule


class StockpotLM(TemplateLM):
    """Models of one tokenizer, combined by a rule, scored and sampled by lm-eval; those of weight 0 do not run.

    One model under ``Linear([1.0])`` gives the numbers of lm-eval's own ``hf`` model.

    Args:
        models: causal language models; put in eval mode.
        tokenizer: their one tokenizer.
        batch_tokens: tokens of a batch, from the free memory if None.
        packed: whether choices share their context's run; None tries it.
        max_length: tokens a model is given at most; the least of what the models take if None.
        max_gen_toks: tokens to generate where a task does not say.
        add_bos_token: whether text gets the beginning-of-text token; the tokenizer decides if None.
        prefix_token_id: what stands before a text without context; ``Encoder.prefix`` if None.
    """

    def __init__(
        self,
        models: Sequence[LanguageModel],
        rule: Rule,
        tokenizer: Any,
        *,
        batch_tokens: int | None = None,
        packed: bool | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for model in models:
            if isinstance(model, nn.Module) and model.training:
                model.eval()
        if fewer := rule.used():
            rule, kept = fewer
            models = [models[k] for k in kept]
        self.models, self.rule, self.tokenizer = with_shared_vocabulary(models, tokenizer), rule, tokenizer
        self.vocabulary = shared_vocabulary(self.models)
        self.batch_tokens, self.packed, self.max_gen_toks, self.seed = batch_tokens, packed, max_gen_toks, seed
        configs = [getattr(model, "config", None) for model in self.models]
        self._max_length = max_length or min(resolve_max_length(config, tokenizer) for config in configs)
        self.encoder = Encoder(tokenizer, self._max_length, add_bos_token, prefix_token_id)
        self._device = device_of(self.models[0])
        self.scored: Scored | None = None
        """The last pass, with what it did."""
        self.halved: int | None = None
        """Tokens of a batch that texts were written with at last; None where memory never ran out."""

    @property
    def eot_token_id(self) -> int:
        return self.encoder.eot

    @property
    def prefix_token_id(self) -> int:
        return self.encoder.prefix

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **unused: Any) -> list[int]:
        return self.encoder.encode(string, add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as text; without its system turn where the template does not take one."""

        def text(turns: list[dict[str, str]]) -> str:
            return self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )

        try:
            return text(chat_history)
        except jinja2.exceptions.TemplateError:
            return text([turn for turn in chat_history if turn["role"] != "system"])

    # Log-likelihoods

    def score(self, requests: Sequence[Request], disable_tqdm: bool = False) -> Scored:
        """Score token requests under the rule; kept as ``scored``."""
        system = System("combination", tuple(range(len(self.models))), self.rule)
        with tqdm(total=len(requests), desc="Scoring requests", disable=disable_tqdm) as bar:

            def show(done: int, _: int) -> None:
                bar.update(done - bar.n)

            self.scored = score(
                self.models,
                [system],
                requests,
                batch_tokens=self.batch_tokens,
                packed=self.packed,
                max_length=self._max_length,
                progress=show,
            )
        if cut := self.scored.work.truncated:
            logging.getLogger("lm_eval").warning(
                "%d of %d contexts were cut on the left to the %d tokens that the model takes",
                cut, len(requests), self._max_length,
            )  # fmt: skip
        return self.scored

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **unused: Any
    ) -> list[tuple[float, bool]]:
        tokens = [Request(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        answers = self.score(tokens, disable_tqdm).answers("combination")
        for (strings, _, _), answer in zip(requests, answers, strict=True):
            if strings is not None:
                self.cache_hook.add_partial("loglikelihood", strings, answer)
        return answers

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._answers(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self._answers(requests, disable_tqdm)

    def _answers(self, instances: list[Instance], disable_tqdm: bool) -> list[Any]:
        collected = requests_of(self.encoder, instances)
        answers = collected.answers(self.score(collected.requests, disable_tqdm), "combination")
        for instance, answer in zip(instances, answers, strict=True):
            self.cache_hook.add_partial(instance.request_type, instance.args, answer)
        return answers

    # Generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One text per request, up to its first stop string; how it is drawn depends on nothing else that is asked."""
        texts: list[str] = [""] * len(requests)
        with tqdm(total=len(requests), desc="Generating", disable=disable_tqdm) as bar:

            def keep(number: int, written: Written) -> None:
                texts[number] = written.text
                self.cache_hook.add_partial("generate_until", requests[number].args, written.text)
                bar.update()

            self.write([each.args for each in requests], done=keep)
        return texts

    def write(
        self,
        asked: Sequence[tuple[str, Any]],
        numbers: Sequence[int] | None = None,
        seed: int | None = None,
        done: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """As ``generate_until``, with the log-probabilities of the tokens.

        Args:
            asked: prompts with their generation arguments.
            numbers: which of the texts that are drawn for its prompt each is; the order of equal requests if None.
            seed: of what is drawn; the model's own if None.
            done: is told every text, with its place, as soon as it is there.
        """
        read = [GenerationRequest(self, *each) for each in asked]
        streams = [stream_of(text, number) for (text, _), number in zip(asked, numbers or counted(asked), strict=True)]
        found: dict[int, Written] = {}
        while len(found) < len(read):
            short = 0
            for batch in self._generation_batches(read, found):
                chosen = [read[r] for r in batch], [streams[r] for r in batch]
                try:
                    texts = self._generated(*chosen, self.seed if seed is None else seed)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or len(batch) == 1:
                        raise
                    short = _tokens(read[batch[0]], len(batch))
                    break  # out of this block, for the error holds on to what filled the memory
                for r, text in zip(batch, texts, strict=True):
                    found[r] = text
                    if done:
                        done(r, text)
            if short:
                self.halved = short // 2
                free_memory()
        return [found[r] for r in range(len(read))]

    def too_long(self, text: str, given: Any) -> str | None:
        """Why a prompt would lose its beginning, or leaves no room for an answer; None where it fits the model."""
        request = GenerationRequest(self, text, given)
        if not request.cut:
            return None
        size = len(request.prompt) + request.cut + request.max_new_tokens
        return f"a prompt and its answer may take {size} tokens, and the model takes {self.max_length}"

    def _generation_batches(self, asked: Sequence[GenerationRequest], found: Container[int]) -> Iterator[list[int]]:
        """Requests without a text, of the same settings and like length, as many as a batch takes; longest first."""
        budget = self.halved or self.batch_tokens or automatic_tokens(self.models, self.vocabulary)
        batch: list[int] = []
        left = [r for r in range(len(asked)) if r not in found]
        for r in sorted(left, key=lambda r: (asked[r].settings, len(asked[r].prompt)), reverse=True):
            first = asked[batch[0]] if batch else asked[r]
            if batch and (first.settings != asked[r].settings or _tokens(first, len(batch) + 1) > budget):
                yield batch
                batch = []
            batch.append(r)
        if batch:
            yield batch

    def _generated(self, asked: Sequence[GenerationRequest], numbers: Sequence[int], seed: int) -> list[Written]:
        """Texts of one batch."""
        first, prompts = asked[0], [each.prompt for each in asked]
        check_settings(self.models, first.given)
        processing = None
        if len(self.models) == 1 and process_logits(self.models[0], first.given):
            processing = partial(self._processors, first)
        found = write(
            self.models,
            self.rule,
            prompts,
            first.max_new_tokens,
            stop=first.stop,
            sampling=self._sampling(first.given, seed),
            numbers=numbers,
            processing=processing,
        )
        return [self._written(each, first.stop) for each in found]

    def _processors(self, asked: GenerationRequest, prompt: Tensor) -> Any:
        return processors(self.models[0], asked.given, prompt, asked.max_new_tokens)

    def _sampling(self, given: Mapping[str, Any], seed: int) -> Sampling:
        """How to draw, if at all."""
        if "do_sample" not in given:
            return Sampling(seed=seed)
        how = drawing(self.models, given)
        return Sampling(given["temperature"], how.get("top_k") or None, how.get("top_p"), seed=seed)

    def _written(self, generated: Generated, stop: Stop) -> Written:
        text = self.tokenizer.decode(generated.tokens, skip_special_tokens=True)
        return Written(postprocess_generated_text(text, list(stop.strings), None), tuple(generated.log_probs))


def _tokens(longest: GenerationRequest, texts: int) -> int:
    """Of a batch of so many texts, with padding, once all is written."""
    return texts * (len(longest.prompt) + longest.max_new_tokens)
