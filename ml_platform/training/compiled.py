"""torch.compile of the module, so that the same job still gives the same bytes.

What is compiled depends on the first shapes that it meets, and a job that goes on meets others first. So every number
of rows gets a program of its own, which nothing else has a say in; `loader.Cuts` gives a rank two numbers at most.
Deterministic algorithms (`job.settle`) also keep Inductor from choosing kernels by a stopwatch.
"""

from __future__ import annotations

import torch
from torch import nn

from ml_platform.errors import TrainingError


def compile_module(module: nn.Module, *, device: str, where: str) -> None:
    """Let a module be compiled when it is first called. Its state keeps its names.

    Args:
        device: "cpu", or a GPU's name.
        where: the model's name, for messages.

    Raises:
        TrainingError: there is no C++ compiler, which compiling for a CPU needs.
    """
    if device == "cpu":
        from torch._inductor import config
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise TrainingError(
                "The model cannot be compiled: there is no C++ compiler.",
                where=f"Recipe.compile, {where}",
                got=f"none of {', '.join(filter(None, config.cpp.cxx))}",
                fix="install g++ (apt-get install g++), name another one in CXX, or leave Recipe.compile out",
            ) from error
    # Beyond some recompilations torch would go on without compiling and say so only in a log: other bytes.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    module.compile(dynamic=False)
