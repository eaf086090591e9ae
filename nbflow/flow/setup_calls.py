"""The calls that every task replays: what they set in a process cannot be compared, and they are harmless to repeat.

Any other discarded call is made once, at its place. docs/top-to-bottom.md publishes this table.
"""

from __future__ import annotations

SETUP_CALLS = tuple(
    # drawing
    "matplotlib.use matplotlib.style.use matplotlib.pyplot.switch_backend matplotlib.pyplot.style.use"
    " matplotlib.pyplot.ion matplotlib.pyplot.ioff matplotlib.pyplot.rcdefaults"
    " matplotlib.scale.register_scale matplotlib.projections.register_projection"
    " matplotlib_inline.backend_inline.set_matplotlib_formats IPython.display.set_matplotlib_formats"
    " seaborn.set seaborn.set_theme seaborn.set_style seaborn.set_context seaborn.set_palette seaborn.set_color_codes"
    " seaborn.reset_defaults seaborn.reset_orig plotly.offline.init_notebook_mode bokeh.io.output_notebook"
    " bokeh.plotting.output_notebook holoviews.extension holoviews.output hvplot.extension panel.extension"
    " altair.renderers altair.data_transformers altair.themes altair.theme arviz.style.use shap.initjs"
    " itables.init_notebook_mode lets_plot.LetsPlot.setup_html"
    # tables and arrays
    " tqdm.pandas tqdm.tqdm.pandas tqdm.auto.tqdm.pandas tqdm.notebook.tqdm.pandas"
    " pandas.plotting.register_matplotlib_converters pandas.set_eng_float_format"
    " pandas.api.extensions.register_dataframe_accessor pandas.api.extensions.register_series_accessor"
    " pandas.api.extensions.register_index_accessor pandas.api.extensions.register_extension_dtype"
    " pandarallel.pandarallel.initialize polars.Config xarray.set_options dask.config.set numpy.set_string_function"
    " geopandas.options pint.set_application_registry sympy.init_printing"
    # learning
    " sklearnex.patch_sklearn jax.config torch.set_default_dtype torch.set_default_device"
    " torch.set_default_tensor_type torch.set_printoptions torch.set_float32_matmul_precision torch.set_num_threads"
    " torch.set_grad_enabled torch.use_deterministic_algorithms torch.autograd.set_detect_anomaly tensorflow.config"
    " tensorflow.get_logger tensorflow.keras.backend.set_floatx tensorflow.keras.mixed_precision.set_global_policy"
    " keras.backend.set_floatx keras.mixed_precision.set_global_policy keras.config mlflow.set_tracking_uri"
    " mlflow.autolog mlflow.sklearn.autolog ee.Initialize"
    # logs
    " transformers.logging transformers.utils.logging datasets.logging datasets.disable_progress_bars optuna.logging"
    " absl.logging.set_verbosity structlog.configure loguru.logger.configure loguru.logger.add loguru.logger.remove"
    " loguru.logger.enable loguru.logger.disable rich.pretty.install rich.traceback.install"
    # Python
    " nest_asyncio.apply faulthandler.enable multiprocessing.set_start_method"
    " collections.abc numbers os.PathLike.register codecs.register gettext.install pyximport.install django.setup"
    " typeguard.install_import_hook jaxtyping.install_import_hook".split()
)
"""Functions, and parts of libraries all of whose functions are meant (`jax.config`), by their full names."""

REGISTRATIONS = frozenset(
    "pandas.api.extensions.register_dataframe_accessor pandas.api.extensions.register_series_accessor"
    " pandas.api.extensions.register_index_accessor pandas.api.extensions.register_extension_dtype"
    " polars.api.register_dataframe_namespace polars.api.register_lazyframe_namespace"
    " polars.api.register_series_namespace polars.api.register_expr_namespace"
    " xarray.register_dataset_accessor xarray.register_dataarray_accessor"
    " IPython.core.magic.register_line_magic IPython.core.magic.register_cell_magic"
    " IPython.core.magic.register_line_cell_magic".split()
)
"""Decorators that hand a class or function to a library: it is replayed in every task below, used or not."""
